package io.strimzi.crdgenerator.annotations;

import java.lang.annotation.Retention;
import java.lang.annotation.RetentionPolicy;

/** Stands where Strimzi's own would be, which is not published, so that reflection finds it. */
@Retention(RetentionPolicy.RUNTIME)
public @interface PresentInVersions {
    String value();
}
