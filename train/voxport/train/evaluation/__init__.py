"""What a trained network gets right: accuracy, verification, rejection."""
