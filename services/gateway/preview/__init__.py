"""Previews: HTTP and WebSocket servers in sandboxes, for browsers, behind signed and expiring URLs."""
