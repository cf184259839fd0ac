"""The conformance kit: does a method keep the plug-in contract? Run on the mini suite, on the CPU."""
