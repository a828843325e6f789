import org.jetbrains.kotlin.gradle.dsl.JvmTarget

plugins {
    `java-library`
    alias(libs.plugins.kotlin.jvm)
}

java {
    sourceCompatibility = JavaVersion.toVersion(libs.versions.jvmTarget.get())
    targetCompatibility = JavaVersion.toVersion(libs.versions.jvmTarget.get())
}

kotlin {
    explicitApi()
    compilerOptions {
        jvmTarget = JvmTarget.fromTarget(libs.versions.jvmTarget.get())
    }
}

dependencies {
    api(libs.onnxruntime)
    api(libs.coroutines.core)

    testImplementation(libs.junit)
}

tasks.test {
    environment("ORT_DISABLE_TELEMETRY", "1")
    maxHeapSize = "2g"
    systemProperty("edgeleaf.fixtures", rootDir.resolve("out/fixtures").path)
}
