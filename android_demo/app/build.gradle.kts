import org.jetbrains.kotlin.gradle.dsl.JvmTarget

plugins {
    alias(libs.plugins.android.application)
    alias(libs.plugins.kotlin.android)
}

android {
    namespace = "io.github.edgeleaf.demo"
    compileSdk = libs.versions.compileSdk.get().toInt()

    defaultConfig {
        minSdk = libs.versions.minSdk.get().toInt()
        targetSdk = libs.versions.targetSdk.get().toInt()
        versionCode = 1
        versionName = libs.versions.edgeleaf.get()
    }
    buildTypes {
        release {
            isMinifyEnabled = true
            proguardFiles(getDefaultProguardFile("proguard-android-optimize.txt"), "proguard-rules.pro")
            signingConfig = signingConfigs.getByName("debug") // a demo; give your own
        }
    }
    compileOptions {
        sourceCompatibility = JavaVersion.toVersion(libs.versions.jvmTarget.get())
        targetCompatibility = JavaVersion.toVersion(libs.versions.jvmTarget.get())
    }
    sourceSets {
        getByName("main").kotlin.srcDir("src/main/kotlin")
        getByName("test").kotlin.srcDir("src/test/kotlin")
    }
    androidResources {
        noCompress += "onnx" // so that the encoder can be mapped where it lies
    }
    splits {
        abi {
            isEnable = true // one APK per processor: all four libraries together are 113 MB
            reset()
            include("arm64-v8a", "armeabi-v7a", "x86_64", "x86")
        }
    }
    testOptions {
        unitTests {
            isIncludeAndroidResources = true
            all {
                it.environment("ORT_DISABLE_TELEMETRY", "1")
                it.maxHeapSize = "2g"
                it.jvmArgs("--add-opens", "java.base/java.io=ALL-UNNAMED") // Robolectric opens assets by file number
                it.systemProperty("screenshots", layout.buildDirectory.dir("screenshots").get().asFile.path)
            }
        }
    }
}

kotlin {
    compilerOptions {
        jvmTarget = JvmTarget.fromTarget(libs.versions.jvmTarget.get())
    }
}

dependencies {
    implementation(project(":edgeleaf-android"))
    implementation(libs.coroutines.android)

    testImplementation(libs.junit)
    testImplementation(libs.robolectric)
    testImplementation(libs.onnxruntime) // the JVM's library: Android's does not run here
}

configurations.matching { it.name.endsWith("UnitTestRuntimeClasspath") }.configureEach {
    exclude(group = "com.microsoft.onnxruntime", module = "onnxruntime-android") // the same classes twice
}

// The encoder, the documents and the certificate are built, not committed.
val encoder = layout.projectDirectory.file("src/main/assets/query_encoder.onnx").asFile
tasks.named("preBuild") {
    doFirst {
        require(encoder.isFile) { "$encoder is missing; run `make android-assets` in the repository first" }
    }
}
