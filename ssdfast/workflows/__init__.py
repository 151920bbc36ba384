"""What runs several stages: `evaluate`, `study` and the demo."""
