"""Makes RPM packages of the checkout, on a Fedora as well as in the private machine."""
