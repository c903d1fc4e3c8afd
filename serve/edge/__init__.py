"""The edge: HAProxy in front of replicas, and the process that keeps it true to the routing table.

One port for scoring and for the control plane, with TLS. `render` says what HAProxy shall be told,
as a pure function; `runtime` tells it while it runs; `haproxy` starts it again when it dies;
`edge` puts these together and `api` is what the control plane and replicas call.
"""
