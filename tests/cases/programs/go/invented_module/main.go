package main

import "github.com/gin-gonic/gin-superfast-router"

func main() { router.Run() }
