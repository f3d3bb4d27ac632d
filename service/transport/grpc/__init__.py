"""The Open Inference Protocol over gRPC, beside HTTP in the same process and event loop.

    bytes ──server──> MessageEndpoint.serve ──> InferEndpoint.compute ──> V2's operations
    status, metadata, bytes <── Response <──┘

It is imported where `grpc_port` is set alone: what it needs is the extra `grpc`. Requests are read
into the `Inference` that V2 reads of JSON, and computed, counted, logged and refused by the same
code; what a status of HTTP is in gRPC stands in `service.transport.grpc.status`.

Reference: Open Inference Protocol, inference_grpc.md.
"""
