"""Copies of live requests to other deployments, and the pairs of answers that they give.

exchange    a live request and its answer, from the replica's guard
sender      takes them and sends the copies: a `lane` for each deployment, over `connection`s
pairs       both answers of one request, in a bounded log on disk; `bodies` says what is kept
sample      reads that log
report      what pairs show, from `review`: agreement, `drift`, latency, errors, the worst pairs
"""
