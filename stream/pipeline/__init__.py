"""What the user asked for: the definition file as typed, checked values."""
