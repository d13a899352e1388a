"""Learning the prompts: where features come from, the steps, the thresholds, and what can be watched meanwhile."""
