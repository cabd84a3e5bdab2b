import java.util.ArrayList;
import java.util.List;
import java.util.Objects;

import com.azure.core.exception.HttpResponseException;

/** Runs named cases, goes on after a failed one, and says what it expected and saw. */
final class Check {
    interface Case {
        void run() throws Exception;
    }

    private final List<String> failed = new ArrayList<>();
    private int passed;

    void run(String name, Case body) {
        try {
            body.run();
            passed++;
            System.out.println("ok    " + name);
        } catch (Exception | AssertionError e) {
            failed.add(name);
            System.out.println("FAIL  " + name);
            e.printStackTrace(System.out);
        }
    }

    /** Prints the sum and ends the program: with status 1 if a case failed. */
    void finish() {
        System.out.println(passed + " passed, " + failed.size() + " failed" + (failed.isEmpty() ? "" : ": " + failed));
        System.exit(failed.isEmpty() ? 0 : 1);
    }

    static void equal(Object want, Object got, String what) {
        if (!Objects.equals(want, got)) {
            throw new AssertionError(what + ": expected " + want + ", saw " + got);
        }
    }

    /** Checks that the service refuses a call with an HTTP status, and returns the error. */
    static HttpResponseException refused(int status, Case call) throws Exception {
        try {
            call.run();
        } catch (HttpResponseException e) {
            equal(status, e.getResponse().getStatusCode(), "status of the refusal (" + e.getMessage() + ")");
            return e;
        }
        throw new AssertionError("expected a refusal with status " + status + ", saw success");
    }
}
