"""What shifted a trained model: self-distillation, a temperature, an EOS bias, or none of them."""
