"""What the Evaluator measures, for TensorFlow Model Analysis: each example is counted once, not once a metric."""
