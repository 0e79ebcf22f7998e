"""The use cases. Each public function is one transaction or a documented sequence of them."""
