"""What moved a trained model: self-distillation, temperature, a bias toward ending, or none of them."""
