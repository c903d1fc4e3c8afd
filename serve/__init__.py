"""Online endpoints: what answers requests, and what stands in front of it.

server        the inference server: one ASGI app over a scoring script
guard         the same app behind the edge: who may call it, and what is marked for mirroring
registration  how a replica enters and leaves the edge
replica       a replica on Ray Serve; `app` builds its application, `autoscaling` says how many
routing       which requests reach which replicas; the edge carries it out
mirror        copies of live requests to other deployments
"""
