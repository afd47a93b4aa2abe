"""Several bundles of a task behind one door: champion, canary and shadow, and the way back."""
