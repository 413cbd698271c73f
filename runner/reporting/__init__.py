"""How results look: tables, sentences, figures, the page."""
