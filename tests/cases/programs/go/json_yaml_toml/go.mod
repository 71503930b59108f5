module example.com/convert

go 1.22

require (
	github.com/BurntSushi/toml v1.4.0
	gopkg.in/yaml.v3 v3.0.1
)
