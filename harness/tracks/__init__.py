"""Other measurements of the same methods: understanding (lm-eval), language forcing, cluster separation."""
