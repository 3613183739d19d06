"""Ablation decoding: the prompts decoded together, both passes of a step, the loop over them, and what it returns."""
