"""Gradle's and Maven's builds of the Android modules agree: versions, SDK levels, manifest, source folders."""

from __future__ import annotations

import re
import shutil
import tomllib
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from edgeleaf import __version__

DEMO = Path(__file__).parents[2] / "android_demo"
MODULES = ("edgeleaf", "edgeleaf-android", "app")
POM = "{http://maven.apache.org/POM/4.0.0}"
ANDROID = "{http://schemas.android.com/apk/res/android}"
SAME = {
    "minSdk": "android.minSdk",
    "targetSdk": "android.targetSdk",
    "jvmTarget": "jvmTarget",
    "kotlin": "kotlin.version",
    "coroutines": "coroutines.version",
    "onnxruntime": "onnxruntime.version",
    "junit": "junit.version",
    "robolectric": "robolectric.version",
}
"""A version of Gradle's catalogue, and the property that holds it in Maven's build."""
DEPENDENCIES = {
    "project(:edgeleaf)": "edgeleaf",
    "project(:edgeleaf-android)": "edgeleaf-android",
    "onnxruntime.android": "onnxruntime",
    "onnxruntime": "onnxruntime",
    "coroutines.core": "kotlinx-coroutines-core-jvm",
    "coroutines.android": "kotlinx-coroutines-android",
    "junit": "junit",
    "robolectric": "robolectric",
}
"""A dependency in Gradle's words, and the same in Maven's."""
MAVEN_ONLY = {"android-all", "kotlin-stdlib"}
"""The device's classes and Kotlin's own, which Gradle's plugins bring."""


def differences(demo: Path) -> list[str]:
    """Return what Gradle's build has otherwise than Maven's, a sentence each."""
    found = []

    def compare(what: str, gradle: object, maven: object) -> None:
        if gradle != maven:
            found.append(f"{what}: {gradle} in Gradle, {maven} in Maven")

    catalogue = tomllib.loads((demo / "gradle" / "libs.versions.toml").read_text(encoding="utf-8"))["versions"]
    pom = ET.parse(demo / "pom.xml").getroot()
    properties = {child.tag.removeprefix(POM): child.text for child in pom.find(f"{POM}properties") or ()}
    compare("version", catalogue["edgeleaf"], pom.findtext(f"{POM}version"))
    for gradle, maven in SAME.items():
        compare(gradle, catalogue[gradle], properties.get(maven))
    compare("compileSdk", catalogue["compileSdk"], properties["android.targetSdk"])
    android = properties["android-all.version"] or ""
    compare("Android of compileSdk", int(catalogue["compileSdk"]) - 20, int(android.split("-")[0]))
    included = re.findall(r'":([\w-]+)"', (demo / "settings.gradle.kts").read_text(encoding="utf-8"))
    compare("modules", included, [module.text for module in pom.iter(f"{POM}module")])
    for module in MODULES:
        script = (demo / module / "build.gradle.kts").read_text(encoding="utf-8")
        module_pom = ET.parse(demo / module / "pom.xml").getroot()
        compare(f"{module}: version", catalogue["edgeleaf"], module_pom.findtext(f"{POM}parent/{POM}version"))
        namespace = re.search(r'namespace = "(.*)"', script)
        compare(
            f"{module}: namespace",
            namespace and namespace[1],
            module_pom.findtext(f"{POM}properties/{POM}android.namespace"),
        )
        code = re.search(r"versionCode = (\d+)", script)
        compare(
            f"{module}: versionCode", code and code[1], module_pom.findtext(f"{POM}properties/{POM}android.versionCode")
        )
        main = re.search(r'"main"\)\.kotlin\.srcDir\("(.*)"\)', script)
        sources = main[1] if main else "src/main/kotlin"  # the Kotlin plugin's own choice
        compare(f"{module}: sources", sources, module_pom.findtext(f"{POM}build/{POM}sourceDirectory"))
        needed = maven_dependencies(module_pom)
        if module == "edgeleaf-android":  # its tests need assets within an APK, which only Maven's build makes
            needed = {name for name in needed if not name.endswith("for tests")}
        else:
            tests = re.search(r'"test"\)\.kotlin\.srcDir\("(.*)"\)', script)
            folder = tests[1] if tests else "src/test/kotlin"
            compare(f"{module}: tests", folder, module_pom.findtext(f"{POM}build/{POM}testSourceDirectory"))
        compare(f"{module}: dependencies", gradle_dependencies(script), needed)
    stored = re.findall(r'noCompress \+= "(\w+)"', (demo / "app" / "build.gradle.kts").read_text(encoding="utf-8"))
    arguments = [argument.text for argument in ET.parse(demo / "app" / "pom.xml").iter(f"{POM}argument")]
    compare(
        "assets that stay uncompressed", [f".{kind}" for kind in stored], arguments[arguments.index("-0") + 1 :][:1]
    )
    return found + manifest_faults(demo)


def gradle_dependencies(script: str) -> set[str]:
    """Return the libraries of a module and whether each is for its tests only, in Maven's words."""
    named = re.findall(
        r'(?m)^ {4}(api|implementation|testImplementation)\((?:libs\.([\w.]+)|project\("(:[\w-]+)"\))', script
    )
    found = set()
    for kind, library, project in named:
        name = DEPENDENCIES[library or f"project({project})"]
        found.add(f"{name} for tests" if kind.startswith("test") and name in ("junit", "robolectric") else name)
    return found - {"onnxruntime"}  # which comes with edgeleaf; its Android library is a package of its own


def maven_dependencies(pom: ET.Element) -> set[str]:
    """Return the same of a module's pom."""
    names = {entry.text or "" for entry in pom.findall(f"{POM}dependencies/{POM}dependency/{POM}artifactId")}
    kept = names - MAVEN_ONLY - {"onnxruntime"}
    tests = {"junit", "robolectric"}
    return {f"{name} for tests" if name in tests else name for name in kept}


def manifest_faults(demo: Path) -> list[str]:
    """Return what a manifest holds that one of the builds must write, or that the app may not have."""
    found = []
    for module in ("edgeleaf-android", "app"):
        path = demo / module / "src" / "main" / "AndroidManifest.xml"
        root = ET.parse(path).getroot()
        text = path.read_text(encoding="utf-8")
        written = [name for name in ("package=", "uses-sdk", "versionCode", "versionName") if name in text]
        found += [f"{module}: {name} is in the manifest; the builds write it" for name in written]
        found += [f"{module}: asks for {asked.get(f'{ANDROID}name')}" for asked in root.iter("uses-permission")]
        for component in root.iter():
            name = component.get(f"{ANDROID}name", "")
            if component.tag in ("application", "activity"):
                source = demo / module / "src" / "main" / "kotlin" / f"{name.replace('.', '/')}.kt"
                if not source.is_file():
                    found.append(f"{module}: the manifest names {name}, which has no source")
        application = root.find("application")
        if application is not None and application.get(f"{ANDROID}allowBackup") != "false":
            found.append(f"{module}: allowBackup is not false")
    return found


def test_both_builds_agree() -> None:
    assert differences(DEMO) == []


def test_the_version_is_the_python_packages() -> None:
    assert ET.parse(DEMO / "pom.xml").findtext(f"{POM}version") == __version__


def test_the_android_library_is_the_version_of_the_java_package() -> None:
    tool = (DEMO / "tools" / "android_library.py").read_text(encoding="utf-8")
    version = re.search(r"<onnxruntime.version>(.*)</", (DEMO / "pom.xml").read_text(encoding="utf-8"))
    assert version and f'VERSION = "{version[1]}"' in tool


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the builds and the app's sources, to change."""
    ignored = shutil.ignore_patterns("target", "out", "assets", "build", "res")
    return shutil.copytree(DEMO, tmp_path / "demo", ignore=ignored)


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("gradle/libs.versions.toml", 'kotlin = "2', 'kotlin = "1', "kotlin: 1"),
        ("gradle/libs.versions.toml", 'edgeleaf = "0', 'edgeleaf = "9', "version: 9"),
        ("gradle/libs.versions.toml", 'minSdk = "26"', 'minSdk = "24"', "minSdk: 24 in Gradle, 26 in Maven"),
        ("gradle/libs.versions.toml", 'compileSdk = "35"', 'compileSdk = "36"', "compileSdk: 36"),
        ("pom.xml", "<onnxruntime.version>1.26", "<onnxruntime.version>1.29", "onnxruntime: 1.26.0 in Gradle, 1.29"),
        ("pom.xml", "<module>edgeleaf-android</module>", "", "modules: "),
        ("app/build.gradle.kts", "io.github.edgeleaf.demo", "io.github.other", "app: namespace: io.github.other"),
        ("app/build.gradle.kts", "versionCode = 1", "versionCode = 2", "app: versionCode: 2 in Gradle, 1 in Maven"),
        ("app/build.gradle.kts", '"src/main/kotlin"', '"src/main/java"', "app: sources: src/main/java"),
        ("app/build.gradle.kts", "implementation(libs.coroutines.android)", "", "app: dependencies"),
        ("app/build.gradle.kts", 'noCompress += "onnx"', 'noCompress += "bin"', "assets that stay uncompressed"),
        ("app/src/main/AndroidManifest.xml", "allowBackup", "restoreAnyVersion", "app: allowBackup is not false"),
        ("app/src/main/AndroidManifest.xml", "demo.AboutActivity", "demo.Gone", "demo.Gone, which has no source"),
        (
            "app/src/main/AndroidManifest.xml",
            "<application",
            '<uses-permission android:name="android.permission.INTERNET" /><application',
            "app: asks for android.permission.INTERNET",
        ),
        ("app/src/main/AndroidManifest.xml", "<application", "<uses-sdk /><application", "app: uses-sdk is in"),
    ],
)
def test_a_planted_difference_is_found(copy: Path, file: str, old: str, new: str, said: str) -> None:
    path = copy / file
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    assert any(said in difference for difference in differences(copy)), differences(copy)
