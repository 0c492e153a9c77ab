"""Evaluation of frozen encoders on labelled datasets: embeddings, folds, probes, scores."""
