"""Models of two halves: what trees see in aggregates, and what a network sees in sequences.

For payments whose fraud labels are known late. A payment has two histories: its card's, up to now, and its place's
(terminal, merchant), up to the label delay. `payments` holds them, `card_history` and `place_history` make features of
them, `sequences` cuts them for the network of `network`, and `hybrid` fits both halves and blends them.

Shapes: n payments, B examples, L positions, C values an event, D width.
"""
