"""ssdfast: was it self-distillation, or just training?"""
