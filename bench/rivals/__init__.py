"""What others serve the same model with, as their tutorials do it; each reads MODEL, a joblib file."""
