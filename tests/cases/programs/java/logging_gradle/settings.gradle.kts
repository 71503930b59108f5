rootProject.name = "logging"
