"""The other end of the wire: where events come from when they do not come from Wikimedia.

Belongs here: the synthetic source, reading and writing captures, and the EventStreams server that serves both over real
HTTP/SSE on loopback, so that demo, tests and benches feed the same producer that runs in production. Does not belong here:
anything that knows of Kafka.
"""
