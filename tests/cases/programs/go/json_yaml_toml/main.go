package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log"

	"github.com/BurntSushi/toml"
	"gopkg.in/yaml.v3"
)

type config struct {
	Name  string   `json:"name" yaml:"name" toml:"name"`
	Ports []int    `json:"ports" yaml:"ports" toml:"ports"`
	Tags  []string `json:"tags,omitempty" yaml:"tags,omitempty" toml:"tags,omitempty"`
}

func main() {
	var read config
	if err := yaml.Unmarshal([]byte("name: web\nports: [80, 443]\n"), &read); err != nil {
		log.Fatal(err)
	}
	asJSON, _ := json.Marshal(read)
	fmt.Println(string(asJSON))
	var buffer bytes.Buffer
	if err := toml.NewEncoder(&buffer).Encode(read); err != nil {
		log.Fatal(err)
	}
	fmt.Print(buffer.String())
}
