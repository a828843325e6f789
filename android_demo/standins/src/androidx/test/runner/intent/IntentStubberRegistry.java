package androidx.test.runner.intent;

/** No intent is answered by a stub. */
public final class IntentStubberRegistry {
    private IntentStubberRegistry() {}

    public static boolean isLoaded() {
        return false;
    }

    public static IntentStubber getInstance() {
        throw new IllegalStateException("there is no stubber");
    }
}
