"""The resolver: workspace files in, a plan out; no network, no containers."""
