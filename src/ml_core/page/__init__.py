"""What every HTML page is made of: words for numbers, figures, pictures, one style sheet."""
