"""The inference server: one ASGI app that hosts a scoring script as Azure's container does.

http        a request and an answer, without a server
entry       which arguments `run()` takes, from a request
answers     what `run()` returned, as bytes
calls       calls of `run()`, for one request or (`batching`) for several; `threads` they run in
deadlines   how long a call may take
gate        how many requests run, and wait, at once; `limits` says how many
swagger     what `/swagger.json` says
app         the ASGI app over these
serving     the app on a port, by the HTTP `protocol` of uvicorn
"""
