"""AWS without AWS, for laptops and tests."""
