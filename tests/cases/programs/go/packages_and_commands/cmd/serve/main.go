package main

func main() { panic("not this one") }
