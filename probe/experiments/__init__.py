"""The paper's experiments on a score store or a frozen LLM: dynamism, correlation, ablation."""
