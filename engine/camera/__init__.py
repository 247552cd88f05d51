"""What the camera sees: keyframes -> a float rectangle -> pixels."""
