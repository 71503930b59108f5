"""The gateway's HTTP door: the calls of GatewayService as HTTP and JSON, on the gateway's own event loop."""
