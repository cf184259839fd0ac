"""The methods that ship with steerboard, one idea per module."""
