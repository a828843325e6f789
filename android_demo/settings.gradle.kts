// The build for Android Studio. It was not executed where this was written, as Google's repository was out of reach
// there; the Maven build beside it was. tests/android/test_builds.py compares the two.
pluginManagement {
    repositories {
        google()
        mavenCentral()
        gradlePluginPortal()
    }
}

dependencyResolutionManagement {
    repositoriesMode = RepositoriesMode.FAIL_ON_PROJECT_REPOS
    repositories {
        google()
        mavenCentral()
    }
}

rootProject.name = "edgeleaf-demo"
include(":edgeleaf", ":edgeleaf-android", ":app")
