"""What this computer and whoever starts us hand over: files, locks, ports, limits, variables, Java, and what their errors mean.

Belongs here: what would serve any program. Does not belong here: what WikiStream keeps or runs (``embedded``).
"""
