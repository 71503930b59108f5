package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"
)

type item struct {
	ID   string `json:"id"`
	Name string `json:"name" binding:"required"`
}

func newRouter() *gin.Engine {
	gin.SetMode(gin.ReleaseMode)
	router := gin.New()
	router.GET("/health", func(c *gin.Context) { c.JSON(http.StatusOK, gin.H{"status": "ok"}) })
	router.POST("/items", func(c *gin.Context) {
		var received item
		if err := c.ShouldBindJSON(&received); err != nil {
			c.JSON(http.StatusBadRequest, gin.H{"error": "name is required"})
			return
		}
		received.ID = uuid.NewString()
		c.JSON(http.StatusCreated, received)
	})
	return router
}

func post(url, body string) (int, item) {
	response, err := http.Post(url, "application/json", bytes.NewBufferString(body))
	if err != nil {
		log.Fatal(err)
	}
	defer response.Body.Close()
	content, _ := io.ReadAll(response.Body)
	var answer item
	_ = json.Unmarshal(content, &answer)
	return response.StatusCode, answer
}

func main() {
	server := httptest.NewServer(newRouter())
	defer server.Close()
	status, answer := post(server.URL+"/items", `{"name": "lamp"}`)
	fmt.Println(status, answer.Name, len(answer.ID))
	status, _ = post(server.URL+"/items", `{}`)
	fmt.Println(status)
}
