"""Spark's JVM is ours: its options, its environment, its user."""

import subprocess
import sys

import psutil
import pytest
from pyspark.sql import SparkSession

from wikistream_assets.embedded.gateway import MODULE_OPTIONS
from wikistream_assets.embedded.spark import jvm_process
from wikistream_assets_tests.machine.test_variables import HOSTILE

pytestmark = pytest.mark.spark


def test_java_is_opened_as_sparks_own_launcher_opens_it(spark: SparkSession) -> None:
    jvm = spark.sparkContext._jvm
    assert jvm is not None
    assert jvm.org.apache.spark.launcher.JavaModuleOptions.defaultModuleOptions().split() == list(MODULE_OPTIONS)


def test_the_jvm_has_the_built_environment_and_no_settings(spark: SparkSession) -> None:
    environment = psutil.Process(jvm_process(spark).pid).environ()
    foreign = {
        name for name in environment if name in HOSTILE and name not in ("SPARK_HOME", "SPARK_LOCAL_IP", "TMPDIR")
    }
    assert foreign == set()
    assert [name for name in environment if name.startswith("WIKISTREAM_")] == []
    assert (environment["SPARK_LOCAL_IP"], environment["LC_ALL"]) == ("127.0.0.1", "C.UTF-8")


def test_locale_and_encoding_do_not_come_from_the_machine(spark: SparkSession) -> None:
    jvm = spark.sparkContext._jvm
    assert jvm is not None
    assert jvm.java.util.Locale.getDefault().toString() == "en_US"
    assert jvm.java.nio.charset.Charset.defaultCharset().name() == "UTF-8"
    assert jvm.java.lang.System.getProperty("sun.jnu.encoding") == "UTF-8"


def test_workers_of_spark_run_this_python(spark: SparkSession) -> None:
    versions = spark.sparkContext.parallelize([0], 1).map(lambda _: __import__("sys").executable).collect()
    assert versions == [sys.executable]


def test_the_jvm_ends_with_the_process_that_started_it(spark: SparkSession) -> None:
    assert isinstance(jvm_process(spark), subprocess.Popen)
    assert psutil.Process(jvm_process(spark).pid).ppid() == psutil.Process().pid


def test_a_jvm_without_the_optimizing_compiler_has_room_for_the_code_of_whole_cycles(spark: SparkSession) -> None:
    """Java reserves 48 MiB for compiled code then, which one demo fills; Spark breaks when no more fits."""
    jvm = spark.sparkContext._jvm
    assert jvm is not None
    arguments = list(jvm.java.lang.management.ManagementFactory.getRuntimeMXBean().getInputArguments())
    assert "-XX:TieredStopAtLevel=1" in arguments
    pools = jvm.java.lang.management.ManagementFactory.getMemoryPoolMXBeans()
    room = sum(pool.getUsage().getMax() for pool in pools if pool.getName().startswith("Code"))
    assert room >= 240 * 2**20
