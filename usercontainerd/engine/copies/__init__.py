"""Files between containers and elsewhere: ``cp``."""
