"""What every service needs to speak gRPC: server, channels, errors, request ids, logs, configuration."""
