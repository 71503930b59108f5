plugins {
    java
    application
}

repositories {
    mavenCentral()
}

val logbackVersion = "1.5.6"

dependencies {
    implementation("org.slf4j:slf4j-api:2.0.13")
    runtimeOnly("ch.qos.logback:logback-classic:$logbackVersion")
    testImplementation(platform("org.junit:junit-bom:5.10.2"))
    testImplementation("org.junit.jupiter:junit-jupiter")
}

application {
    mainClass.set("demo.LoggingDemo")
}
