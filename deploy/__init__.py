"""What it takes to run a gateway elsewhere: images, services, and what watches them. The product imports none of it."""
