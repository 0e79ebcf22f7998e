"""What every sandbox does alike, whatever holds it in: how a program starts and ends, its result, and the self-test."""
