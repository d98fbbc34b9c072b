import com.fasterxml.jackson.annotation.JsonSubTypes;
import com.fasterxml.jackson.databind.BeanDescription;
import com.fasterxml.jackson.databind.JavaType;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.SerializationFeature;
import com.fasterxml.jackson.databind.introspect.AnnotatedMember;
import com.fasterxml.jackson.databind.introspect.BeanPropertyDefinition;
import io.strimzi.crdgenerator.annotations.PresentInVersions;
import io.strimzi.crdgenerator.annotations.RequiredInVersions;
import java.io.File;
import java.lang.reflect.Modifier;
import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.TreeSet;

/** Writes a strict JSON schema of each of Strimzi's kinds that the chart uses: Schemas DIRECTORY. */
public class Schemas {
    static final String VERSION = "v1";
    static final Map<String, String> KINDS = Map.of(
        "Kafka", "io.strimzi.api.kafka.model.kafka.Kafka",
        "KafkaNodePool", "io.strimzi.api.kafka.model.nodepool.KafkaNodePool",
        "KafkaTopic", "io.strimzi.api.kafka.model.topic.KafkaTopic",
        "KafkaUser", "io.strimzi.api.kafka.model.user.KafkaUser");

    final ObjectMapper mapper = new ObjectMapper().enable(SerializationFeature.ORDER_MAP_ENTRIES_BY_KEYS);
    final Map<String, Object> definitions = new TreeMap<>();

    public static void main(String[] args) throws Exception {
        for (Map.Entry<String, String> kind : KINDS.entrySet()) {
            Schemas s = new Schemas();
            JavaType type = s.mapper.constructType(Class.forName(kind.getValue()));
            Map<String, Object> properties = new TreeMap<>();
            properties.put("apiVersion", Map.of("enum", List.of("kafka.strimzi.io/" + VERSION)));
            properties.put("kind", Map.of("enum", List.of(kind.getKey())));
            properties.put("metadata", Map.of("type", "object"));
            for (BeanPropertyDefinition p : s.describe(type).findProperties()) {
                if (p.getName().equals("spec")) {
                    properties.put("spec", s.schema(p.getPrimaryType()));
                }
            }
            Map<String, Object> schema = new TreeMap<>(Map.of("$schema", "http://json-schema.org/schema#", "type", "object",
                "properties", properties, "required", List.of("apiVersion", "kind", "metadata", "spec"),
                "additionalProperties", false, "definitions", s.definitions));
            s.mapper.writeValue(new File(args[0], kind.getKey().toLowerCase() + "_" + VERSION + ".json"), schema);
        }
    }

    BeanDescription describe(JavaType type) {
        return mapper.getDeserializationConfig().introspect(type);
    }

    Map<String, Object> schema(JavaType type) {
        Class<?> raw = type.getRawClass();
        String name = raw.getName();
        if (raw == Object.class) {
            return Map.of();
        } else if (raw == String.class) {
            return Map.of("type", "string");
        } else if (raw == boolean.class || raw == Boolean.class) {
            return Map.of("type", "boolean");
        } else if (raw == double.class || raw == Double.class || raw == float.class || raw == Float.class) {
            return Map.of("type", "number");
        } else if (raw.isPrimitive() || Number.class.isAssignableFrom(raw)) {
            return Map.of("type", "integer");
        } else if (name.endsWith(".IntOrString") || name.endsWith(".Quantity")) {
            return Map.of("type", List.of("string", "number"));
        } else if (raw.isEnum()) {
            List<Object> values = new ArrayList<>();
            for (Object value : raw.getEnumConstants()) {
                values.add(mapper.convertValue(value, Object.class));
            }
            return Map.of("enum", values);
        } else if (type.isMapLikeType()) {
            return Map.of("type", "object", "additionalProperties", schema(type.getContentType()));
        } else if (type.isCollectionLikeType() || Collection.class.isAssignableFrom(raw)) {
            return Map.of("type", "array", "items", schema(type.getContentType()));
        }
        if (!definitions.containsKey(name)) {
            definitions.put(name, null); // for classes that contain themselves
            definitions.put(name, bean(type));
        }
        return Map.of("$ref", "#/definitions/" + name);
    }

    Map<String, Object> bean(JavaType type) {
        Map<String, Object> properties = new TreeMap<>();
        TreeSet<String> required = new TreeSet<>();
        fields(type, properties, required);
        JsonSubTypes subtypes = type.getRawClass().getAnnotation(JsonSubTypes.class);
        if (subtypes != null) { // one of several, told apart by "type": the fields of all
            TreeSet<String> names = new TreeSet<>();
            for (JsonSubTypes.Type subtype : subtypes.value()) {
                names.add(subtype.name());
                fields(mapper.constructType(subtype.value()), properties, new TreeSet<>());
            }
            properties.put("type", Map.of("enum", names));
            required.add("type");
        }
        Map<String, Object> schema = new TreeMap<>(Map.of("type", "object", "properties", properties));
        if (!required.isEmpty()) {
            schema.put("required", required);
        }
        boolean open = properties.isEmpty() && Modifier.isAbstract(type.getRawClass().getModifiers());
        if (!open) {
            schema.put("additionalProperties", false);
        }
        return schema;
    }

    void fields(JavaType type, Map<String, Object> properties, TreeSet<String> required) {
        for (BeanPropertyDefinition p : describe(type).findProperties()) {
            AnnotatedMember[] members = {p.getGetter(), p.getSetter(), p.getField()};
            boolean present = true;
            for (AnnotatedMember member : members) {
                PresentInVersions in = member == null ? null : member.getAnnotation(PresentInVersions.class);
                present &= in == null || covers(in.value());
                RequiredInVersions must = member == null ? null : member.getAnnotation(RequiredInVersions.class);
                if (must != null && covers(must.value())) {
                    required.add(p.getName());
                }
            }
            if (present && !p.getName().equals("additionalProperties")) {
                properties.put(p.getName(), schema(p.getPrimaryType()));
            }
        }
        required.retainAll(properties.keySet());
    }

    /** Whether a range such as "v1beta2", "v1+", "v1-v1beta2" or "all" has the version that is written. */
    static boolean covers(String range) {
        return range.equals("all") || range.equals("v1") || range.equals("v1+") || range.startsWith("v1-") || range.endsWith("-v1") || range.endsWith("+");
    }
}
