"""What a runner starts containers with."""
