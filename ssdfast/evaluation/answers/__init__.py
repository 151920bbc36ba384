"""Are two mathematical answers equal? Usable alone: text in, a grade out."""
